"""Text for calibration and for quality: embedded corpora, labelled sets, splits that share no text, token batches."""
