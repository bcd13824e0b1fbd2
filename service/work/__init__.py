"""Work that runs as jobs: each file a kind, and what watches over them."""
