"""Images in columns of Parquet files."""
