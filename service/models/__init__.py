"""What becomes of models here: trained, held to gates, compared, moved, asked for whole tables."""
