//! Rules of the API that kubectl does not show.
