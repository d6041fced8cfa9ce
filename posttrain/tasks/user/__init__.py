"""The user's own tasks: a JSONL file, or a function that makes problems."""
