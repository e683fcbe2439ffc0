"""The server: OpenAI's interface over a completer. The only room that imports the web framework and pydantic."""
