"""What every stage needs: parameters, methods by name, paths, writing files, how a program ends."""
