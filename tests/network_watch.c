/* Stands between a program and the C library (LD_PRELOAD), and tells whom it calls and where it listens, whoever does so:
   Python, DuckDB, Arrow or torch. A line each, as the hook of network_watch.py writes them. */
#define _DEFAULT_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym((void *)-1L, #name))

extern char *program_invocation_short_name;

static void told(const char *call, const char *host, int port) {
    int before = errno, file = getenv("WATCHED") ? open(getenv("WATCHED"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (file >= 0) {
        char line[512];
        int length = snprintf(line, sizeof line, "[\"%s\", \"%.255s\", \"%d\", [\"%.100s\"]]\n", call, host, port, program_invocation_short_name);
        if (write(file, line, length) < length) abort();
        close(file);
    }
    errno = before;
}

static void place(const char *call, const struct sockaddr *to) {
    char host[INET6_ADDRSTRLEN] = "?";
    if (to && to->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const void *)to;
        told(call, inet_ntop(AF_INET, &four->sin_addr, host, sizeof host), ntohs(four->sin_port));
    } else if (to && to->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const void *)to;
        told(call, inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host), ntohs(six->sin6_port));
    }
}

int connect(int wire, const struct sockaddr *to, socklen_t size) {
    place("connect", to);
    return NEXT(connect)(wire, to, size);
}

int bind(int wire, const struct sockaddr *to, socklen_t size) {
    place("bind", to);
    return NEXT(bind)(wire, to, size);
}

ssize_t sendto(int wire, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    place("sendto", to);
    return NEXT(sendto)(wire, data, length, flags, to, size);
}

ssize_t sendmsg(int wire, const struct msghdr *message, int flags) {
    place("sendmsg", message->msg_name);
    return NEXT(sendmsg)(wire, message, flags);
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
    told("getaddrinfo", host ? host : "None", port ? atoi(port) : 0);
    return NEXT(getaddrinfo)(host, port, hints, found);
}
