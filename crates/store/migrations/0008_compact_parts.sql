-- A part with a file for each of some hundred columns is two hundred files to make, and to delete when it is merged: for what one insert writes, that costs the server more
-- than the rows do. So parts of up to 128 MiB are one file.
ALTER TABLE outcomes
    MODIFY SETTING min_bytes_for_wide_part = 134217728;
