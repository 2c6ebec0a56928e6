//! An order as its events tell it: what was charged, by the sale and by edits, and what went back.
