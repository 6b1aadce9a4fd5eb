"""One file a method; the table of names is `fusionlearn.method.METHODS`."""
