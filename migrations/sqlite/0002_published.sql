-- What imports publish beside ticks, and what they leave out.

-- Lines that published something else than a tick, and how many lines of which kind were left out, as JSON:
-- {"bookTicker": 28040}. The column ignored holds their sum.
ALTER TABLE runs ADD COLUMN published INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN ignored_kinds TEXT NOT NULL DEFAULT '{}';
