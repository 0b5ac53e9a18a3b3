-- Texts and prices have tables of their own since 0002, and nothing reads these any more.
-- squawk-ignore-file ban-drop-column, ban-drop-function
DROP FUNCTION refresh_window;
ALTER TABLE variants DROP COLUMN title, DROP COLUMN description, DROP COLUMN price, DROP COLUMN currency;
ALTER TABLE products DROP COLUMN title, DROP COLUMN description;
