-- Offers made a moment ago, for those who route.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX offers_lately ON offers (create_time);
