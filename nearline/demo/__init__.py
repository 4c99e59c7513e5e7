"""The demo: a made-up world, the small model package that was trained on such worlds, and the main job run on both."""
