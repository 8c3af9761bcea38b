"""What a request's trace says: plain data, and how it is encoded; nothing here needs MLflow."""
