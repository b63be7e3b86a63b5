//! Support for the tests of ComSIPL.
