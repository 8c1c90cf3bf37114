FROM base
ENV V=val
COPY <<A <<"B" /hd/
a $V \$V ${V} 'q' "dq" \\ it's
A
b $V \$V
B
COPY --chmod=755 --chown=app <<-EOF /hd/script
	#!/bin/sh
	echo $V
EOF
