"""Ray, Parquet, MLflow, specs and storage. Knows no model and no loss."""
