"""ComP: modalities that prompt each other through prototypes of the dialogue."""
