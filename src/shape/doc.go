// Package shape holds the tests that guard the shape of the tree: which way
// imports point, what only some packages may use, and that every package says
// what it is.
package shape
