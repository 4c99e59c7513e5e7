"""The log of the generations: what it says, who follows it, and what may follow on what."""
