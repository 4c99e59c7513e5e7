"""The answer to "which posts should this member see?": member vectors, hot feed, merge, HTTP service, client."""
