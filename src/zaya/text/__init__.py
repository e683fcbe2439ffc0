"""The only place where messages become token ids, and token ids become messages."""
