-- What a run that failed has rejected in the batch in which it did.

-- Lines refused in that batch, which is not stored: rejected does not count them. 0 once the run is continued. Those of
-- them that are kept stand behind the others in run_rejects, until then.
ALTER TABLE runs ADD COLUMN unstored_rejected INTEGER NOT NULL DEFAULT 0;
