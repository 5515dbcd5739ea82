"""The Python interface: compile, load, call, train. The compiler is imported where something has to be compiled, not before."""
