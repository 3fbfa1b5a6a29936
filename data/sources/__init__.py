"""Where records come from: folders, tables, shards, data sets, the embedded samples."""
