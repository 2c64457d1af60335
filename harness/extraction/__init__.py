"""From raw transcripts, audio and video to features in the native format."""
