"""One file a teacher; the table of names is `fusionlearn.teacher.TEACHERS`."""
