"""Files on disk: paths go in; tables, archives, vectors and Kaldi's back-end objects come out, and are written."""
