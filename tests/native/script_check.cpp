// Prints the script of each line of standard input.
#include "vocab/script_of.h"

#include <cstdio>
#include <iostream>
#include <string>

int main() {
    for (std::string line; std::getline(std::cin, line);) {
        printf("%d\n", vt::script_of(line));
    }
    return 0;
}
