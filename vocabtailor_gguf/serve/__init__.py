"""An OpenAI-compatible server: several texts over one engine, behind FastAPI."""
