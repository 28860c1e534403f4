"""The stages that decode and caption, and the two runners that execute them: local and Ray Data."""
