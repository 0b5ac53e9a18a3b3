-- Texts and prices have tables of their own since 0002, and nothing reads these any more.
-- squawk-ignore-file ban-drop-column, ban-drop-function, require-concurrent-index-creation
DROP FUNCTION refresh_window;
ALTER TABLE variants DROP COLUMN title, DROP COLUMN description, DROP COLUMN price, DROP COLUMN currency;
ALTER TABLE products DROP COLUMN title, DROP COLUMN description;

-- For the lists of those who keep them.
CREATE INDEX products_by_state ON products (state, product_id);
