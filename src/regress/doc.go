// Package regress holds the tests of the whole daemon: the built programs, real
// processes, real sockets, a real disk. Those that need root and namespaces of
// their own run under `make regress` alone and say so otherwise.
package regress
