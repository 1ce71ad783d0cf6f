"""Self-contained HTML pages: elements, tables, charts, one look; nothing is loaded from elsewhere."""
