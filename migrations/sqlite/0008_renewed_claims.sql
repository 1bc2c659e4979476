-- Since which claim one publisher has held a producer id. After a cut it renews its claim, and is refused if another has
-- claimed the id in between.

ALTER TABLE producers
    ADD COLUMN held_since INTEGER NOT NULL DEFAULT 0;  -- fence of its first claim; 0 for claims of older servers
