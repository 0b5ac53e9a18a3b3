// The load client of the benchmarks. It sends requests that were serialised beforehand and looks at no message, so that
// it takes as little as possible of the machine it shares with what is measured.
//
//	loadclient load  -address A -method /pkg.Service/Method -requests FILE ...   one JSON result on standard output
//	loadclient probe                                  one JSON probe a line on standard input, one result a line
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: loadclient load|probe [options]"))
	}
	var err error
	switch os.Args[1] {
	case "load":
		err = load(os.Args[2:])
	case "probe":
		err = probe()
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
