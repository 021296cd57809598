//! Reads again all that is stored of the history, and says what is damaged before anybody needs it.

mod nodes;
