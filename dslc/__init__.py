"""dslc: a declarative graph-compiler DSL for deep learning."""
