-- Other shops that have a brand or a product, found by agents.
CREATE TABLE referrals (
    referral_id text COLLATE "C" PRIMARY KEY,
    -- What the other shop has: one of the two, the other is empty. A brand is meant however it is spelt.
    brand text NOT NULL,
    product_id text COLLATE "C" NOT NULL,
    shop_name text NOT NULL,
    uri text NOT NULL,
    note text NOT NULL,
    agent_id text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((brand = '') <> (product_id = ''))
);
CREATE UNIQUE INDEX referrals_of ON referrals (product_id, lower(brand), lower(shop_name));

-- Alternatives are looked for by brand, too.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX variants_alike;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX variants_alike ON variants (size, category, gender, brand, sku) WHERE sellable;
