"""One file an encoder; the table of names is `fusionlearn.encoder.ENCODERS`."""
