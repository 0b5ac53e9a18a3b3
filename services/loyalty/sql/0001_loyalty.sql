-- Where a customer stands. Locked before anything of the customer is decided.
CREATE TABLE standings (
    customer_id text PRIMARY KEY,
    -- The sum of the ledger.
    points bigint NOT NULL DEFAULT 0 CHECK (points >= 0),
    -- The tier as it was last announced, and the version of the rule that made it.
    tier text NOT NULL DEFAULT 'NEW' CHECK (tier IN ('NEW', 'REGULAR', 'FRIEND')),
    rule_version bigint NOT NULL,
    -- Counts what was announced.
    version bigint NOT NULL DEFAULT 0,
    -- When time alone may lower the tier.
    review_time timestamptz
);
CREATE INDEX standings_review ON standings (review_time) WHERE review_time IS NOT NULL;
CREATE INDEX standings_rule ON standings (rule_version);

-- The append-only points ledger.
CREATE TABLE points_ledger (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id text NOT NULL REFERENCES standings,
    points bigint NOT NULL,
    reason text NOT NULL CHECK (reason IN ('delivery', 'adjust')),
    text text NOT NULL,
    order_id text,
    shipment_id text,
    -- The fact that caused it, or who did.
    fact_id text,
    actor text NOT NULL,
    rule_version bigint NOT NULL,
    -- When it was earned; create_time is when we wrote it.
    earn_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX points_ledger_newest ON points_ledger (customer_id, entry_id DESC);
CREATE INDEX points_ledger_earned ON points_ledger (customer_id, earn_time) INCLUDE (points);
-- A parcel gives its points once, however often its delivery is told.
CREATE UNIQUE INDEX points_ledger_delivery ON points_ledger (shipment_id) WHERE reason = 'delivery';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER points_ledger_is_append_only BEFORE UPDATE OR DELETE ON points_ledger
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The versions of the upgrade policy. Versions and times rise together, so that each instant has one policy for ever.
CREATE TABLE upgrade_policies (
    version bigint PRIMARY KEY,
    active_from timestamptz NOT NULL UNIQUE,
    minimum_tier text NOT NULL CHECK (minimum_tier IN ('NEW', 'REGULAR', 'FRIEND')),
    minimum_order_value numeric(12, 2) CHECK (minimum_order_value >= 0),
    countries text [] NOT NULL,
    minimum_days_since_last bigint NOT NULL CHECK (minimum_days_since_last >= 0),
    currency text NOT NULL,
    unit_cost numeric(12, 2) NOT NULL CHECK (unit_cost >= 0),
    monthly_budget numeric(12, 2) NOT NULL CHECK (monthly_budget >= unit_cost),
    daily_budget numeric(12, 2) NOT NULL CHECK (daily_budget BETWEEN unit_cost AND monthly_budget),
    actor text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER upgrade_policies_are_append_only BEFORE UPDATE OR DELETE ON upgrade_policies
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The shop surprises its regulars from its first day on.
INSERT INTO upgrade_policies (version, active_from, minimum_tier, countries, minimum_days_since_last, currency,
    unit_cost, monthly_budget, daily_budget, actor)
VALUES (1, '2020-01-01T00:00:00Z', 'REGULAR', '{AT,DE,CZ,SK}', 14, 'EUR', 9.90, 20000.00, 2000.00, 'migration');

-- What is given away of the budget of a calendar month or day (UTC). Locked month first, then day.
CREATE TABLE budgets (
    period text NOT NULL CHECK (period IN ('month', 'day')),
    first_day date NOT NULL,
    currency text NOT NULL,
    reserved numeric(14, 2) NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    spent numeric(14, 2) NOT NULL DEFAULT 0 CHECK (spent >= 0),
    PRIMARY KEY (period, first_day, currency)
);

-- One row an order, written by whatever is heard of it first. `state` is set once it is decided, and decided once.
CREATE TABLE upgrades (
    order_id text PRIMARY KEY,
    customer_id text NOT NULL,
    state text CHECK (state IN ('declined', 'reserved', 'spent', 'returned')),
    -- What shipping said: upgraded, not_applied, cancelled.
    heard text [] NOT NULL DEFAULT '{}',
    reason text,
    -- No foreign key: versions are never deleted, and every decision would share-lock the same row.
    policy_version bigint,
    outcomes jsonb,
    text text,
    order_time timestamptz,
    currency text,
    cost numeric(12, 2) NOT NULL DEFAULT 0,
    month_left numeric(14, 2),
    day_left numeric(14, 2),
    decide_time timestamptz,
    CONSTRAINT decided_whole CHECK (
        state IS NULL OR (reason IS NOT NULL AND outcomes IS NOT NULL AND text IS NOT NULL
            AND order_time IS NOT NULL AND decide_time IS NOT NULL)
    )
);
CREATE INDEX upgrades_surprises ON upgrades (customer_id, order_time) WHERE state IN ('reserved', 'spent');

-- Locks a customer and tells how the customer stands, counting the points earned within the span before an instant (now
-- if none is given). Functions like this one, since each statement of them sees what was committed while the one before
-- waited for its lock.
CREATE FUNCTION lock_standing(customer text, as_of timestamptz, span interval, rule bigint) RETURNS TABLE (
    customer_id text,
    points bigint,
    tier text,
    rule_version bigint,
    version bigint,
    qualifying_points bigint,
    oldest timestamptz,
    lock_time timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    reached timestamptz;
BEGIN
    INSERT INTO standings (customer_id, rule_version) VALUES (customer, rule) ON CONFLICT DO NOTHING;
    PERFORM FROM standings WHERE customer_id = customer FOR UPDATE;
    reached := clock_timestamp();
    RETURN QUERY SELECT s.customer_id, s.points, s.tier, s.rule_version, s.version,
        coalesce(l.points, 0)::bigint, l.oldest, reached
    FROM standings s, LATERAL (
        SELECT sum(points) AS points, min(earn_time) AS oldest FROM points_ledger
        WHERE customer_id = customer AND earn_time > coalesce(as_of, reached) - span
    ) l WHERE s.customer_id = customer;
END $$;

-- Locks an order, then its customer, and tells what a decision stands on. `state` is set when it is decided already.
CREATE FUNCTION lock_for_decision(
    wanted_order text, customer text, placed timestamptz, span interval, rule bigint
) RETURNS TABLE (
    state text,
    heard text [],
    qualifying_points bigint,
    last_surprise timestamptz,
    policy upgrade_policies,
    month_reserved numeric,
    month_spent numeric,
    day_reserved numeric,
    day_spent numeric,
    lock_time timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    mark upgrades;
    standing record;
    in_force upgrade_policies;
    placed_day date := (placed AT TIME ZONE 'UTC')::date;
BEGIN
    INSERT INTO upgrades (order_id, customer_id) VALUES (wanted_order, customer) ON CONFLICT DO NOTHING;
    SELECT * INTO mark FROM upgrades WHERE order_id = wanted_order FOR UPDATE;
    SELECT * INTO standing FROM lock_standing(customer, placed, span, rule);
    SELECT * INTO in_force FROM upgrade_policies WHERE active_from <= placed ORDER BY active_from DESC LIMIT 1;
    RETURN QUERY SELECT mark.state, mark.heard, standing.qualifying_points, (
        SELECT max(order_time) FROM upgrades WHERE customer_id = customer AND state IN ('reserved', 'spent')
    ), in_force, coalesce(m.reserved, 0), coalesce(m.spent, 0), coalesce(d.reserved, 0), coalesce(d.spent, 0),
        standing.lock_time
    FROM (SELECT 1) one
    LEFT JOIN budgets m ON m.period = 'month' AND m.first_day = date_trunc('month', placed_day)::date
        AND m.currency = in_force.currency
    LEFT JOIN budgets d ON d.period = 'day' AND d.first_day = placed_day AND d.currency = in_force.currency;
END $$;

-- Locks orders, then customers, each in the order of their ids: for facts that are handled in one transaction.
CREATE FUNCTION lock_ahead(orders text [], owners text [], customers text [], rule bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO upgrades (order_id, customer_id) SELECT * FROM unnest(orders, owners) AS o (id, owner) ORDER BY id
    ON CONFLICT DO NOTHING;
    PERFORM FROM upgrades WHERE order_id = ANY(orders) ORDER BY order_id FOR UPDATE;
    INSERT INTO standings (customer_id, rule_version) SELECT id, rule FROM unnest(customers) AS c (id) ORDER BY id
    ON CONFLICT DO NOTHING;
    PERFORM FROM standings WHERE customer_id = ANY(customers) ORDER BY customer_id FOR UPDATE;
END $$;

-- Locks the budgets of an order's month and day, and tells what is given away of them.
CREATE FUNCTION lock_budgets(month date, day date, paid_in text) RETURNS TABLE (
    month_reserved numeric,
    month_spent numeric,
    day_reserved numeric,
    day_spent numeric
) LANGUAGE plpgsql AS $$
DECLARE
    m budgets;
    d budgets;
BEGIN
    INSERT INTO budgets (period, first_day, currency) VALUES ('month', month, paid_in) ON CONFLICT DO NOTHING;
    SELECT * INTO m FROM budgets b
    WHERE b.period = 'month' AND b.first_day = month AND b.currency = paid_in FOR UPDATE;
    INSERT INTO budgets (period, first_day, currency) VALUES ('day', day, paid_in) ON CONFLICT DO NOTHING;
    SELECT * INTO d FROM budgets b
    WHERE b.period = 'day' AND b.first_day = day AND b.currency = paid_in FOR UPDATE;
    RETURN QUERY SELECT m.reserved, m.spent, d.reserved, d.spent;
END $$;

-- Moves money between left, reserved and spent of both budgets of an order, in the order of their locks.
CREATE FUNCTION move_budgets(
    month date, day date, paid_in text, reserved_delta numeric, spent_delta numeric
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE budgets b SET reserved = b.reserved + reserved_delta, spent = b.spent + spent_delta
    WHERE b.period = 'month' AND b.first_day = month AND b.currency = paid_in;
    UPDATE budgets b SET reserved = b.reserved + reserved_delta, spent = b.spent + spent_delta
    WHERE b.period = 'day' AND b.first_day = day AND b.currency = paid_in;
END $$;
