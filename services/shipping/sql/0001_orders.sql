-- The days between which a parcel arrives, in the customer's zone; the deadline is the end of the latest day.
CREATE TYPE delivery_promise AS (
    service_level text,
    earliest date,
    latest date,
    deadline timestamptz,
    time_zone text
);

-- Goods held for a customer who is about to order. Prices, level and country are what the customer was shown.
CREATE TABLE checkouts (
    checkout_id text PRIMARY KEY,
    customer_id text NOT NULL,
    reservation_id text NOT NULL UNIQUE,
    service_level text NOT NULL,
    delivery_price numeric NOT NULL CHECK (delivery_price >= 0),
    country text NOT NULL,
    highlights_version text NOT NULL,
    -- A shop.shipping.v1.Address, encrypted. The only personal data here.
    address bytea,
    journey_id text,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    expire_time timestamptz NOT NULL,
    -- Inventory said that the hold ran out, and no order had been taken.
    lapse_time timestamptz,
    -- Whether whoever deletes what nobody ordered has seen an order of it, and need not look again.
    kept boolean NOT NULL DEFAULT false
);
CREATE INDEX checkouts_over ON checkouts ((coalesce(lapse_time, expire_time))) WHERE NOT kept;

CREATE TABLE checkout_lines (
    checkout_id text NOT NULL REFERENCES checkouts ON DELETE CASCADE,
    position bigint NOT NULL,
    sku text NOT NULL,
    title text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    unit_price numeric NOT NULL CHECK (unit_price >= 0),
    PRIMARY KEY (checkout_id, sku)
);

-- Locked before anything of the order changes; version counts its changes. Its lines are those of its checkout.
CREATE TABLE orders (
    order_id text PRIMARY KEY,
    customer_id text NOT NULL,
    checkout_id text NOT NULL UNIQUE REFERENCES checkouts,
    reservation_id text NOT NULL,
    -- Who placed it with which request id: a repeat finds its order, also before there is an answer.
    caller text NOT NULL,
    request_id text NOT NULL,
    payment_reference text NOT NULL UNIQUE,
    highlights_version text NOT NULL,
    country text NOT NULL,
    carrier text NOT NULL,
    delivery_price numeric NOT NULL CHECK (delivery_price >= 0),
    promise delivery_promise NOT NULL,
    state text NOT NULL CHECK (
        state IN ('pending', 'giving_up', 'confirmed', 'rejected', 'cancelled', 'dispatched', 'delivered')
    ),
    version bigint NOT NULL,
    reason text NOT NULL DEFAULT '',
    -- What the customer is told of a rejected order: {"reason", "message", "details"}.
    refused json,
    -- What became of the upgrade that was granted: APPLIED, or why not.
    upgrade text,
    -- The answer to the call that placed it, a shop.shipping.v1.Order.
    answer bytea,
    journey_id text,
    create_time timestamptz NOT NULL,
    -- When somebody looks after it again while it is pending.
    attempt_time timestamptz,
    UNIQUE (caller, request_id)
);
CREATE INDEX orders_of_customer ON orders (customer_id, create_time DESC, order_id DESC);
CREATE INDEX orders_pending ON orders (attempt_time) WHERE state IN ('pending', 'giving_up');

CREATE TABLE shipments (
    shipment_id text PRIMARY KEY,
    order_id text NOT NULL REFERENCES orders,
    journey_id text,
    location text NOT NULL,
    carrier text NOT NULL,
    state text NOT NULL CHECK (state IN ('preparing', 'dispatched', 'delivered', 'cancelled')),
    tracking_reference text UNIQUE,
    original_promise delivery_promise NOT NULL,
    current_promise delivery_promise NOT NULL,
    dispatch_time timestamptz,
    delivery_time timestamptz,
    UNIQUE (order_id, location)
);

CREATE TABLE shipment_items (
    shipment_id text NOT NULL REFERENCES shipments,
    sku text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (shipment_id, sku)
);

-- Append-only: how the promise of a parcel moved, and why.
CREATE TABLE promise_changes (
    shipment_id text NOT NULL REFERENCES shipments,
    number bigint NOT NULL,
    promise delivery_promise NOT NULL,
    reason text NOT NULL,
    change_time timestamptz NOT NULL,
    PRIMARY KEY (shipment_id, number)
);

-- What carriers' scanners saw, also of parcels that are not known (yet).
CREATE TABLE scans (
    scan_id text PRIMARY KEY,
    tracking_reference text NOT NULL,
    kind text NOT NULL,
    scan_time timestamptz NOT NULL,
    record_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX scans_of_parcel ON scans (tracking_reference, scan_time);
