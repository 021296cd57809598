-- The epoch keys that open the key table's copy in the bucket: for a day after a rotation more than one.
CREATE TABLE copied_epochs (
    epoch TEXT NOT NULL PRIMARY KEY
);
INSERT INTO copied_epochs (epoch) SELECT copied_epoch FROM key_table WHERE copied_epoch IS NOT NULL;
ALTER TABLE key_table DROP COLUMN copied_epoch;
