//! Tallies: how far a partner, or a program, has come under a rule within a window.
