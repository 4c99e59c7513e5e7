"""What people ask of the stages and send to them: lag, wait, ingest, export, dead letters. Knows no stage's inside."""
