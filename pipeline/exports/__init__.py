"""Writes the captions of an output in the formats of other programs: tables, sidecar files, tars, image folders."""
