"""Files on disk: in go paths, out come tables, archives, vectors and Kaldi's back-end objects, and back again."""
