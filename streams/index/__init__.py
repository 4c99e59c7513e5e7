"""The index stage: embedding records into the cold tier, effects before offsets."""
