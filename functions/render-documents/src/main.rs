use typst_pdf as _; use typst_as_lib as _; use typst_layout as _; fn main(){}
