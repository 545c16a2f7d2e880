// Shout answers with its request in upper case: a module in C.
#include <ctype.h>
#include <stdio.h>

__attribute__((export_name("shout"))) int shout(void) {
	clearerr(stdin); // the end of the last call's request
	for (int c; (c = getchar()) != EOF;)
		putchar(toupper(c));
	return fflush(stdout);
}
