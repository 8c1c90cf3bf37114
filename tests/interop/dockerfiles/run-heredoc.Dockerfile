FROM base
RUN <<EOF
echo one > /o
echo two >> /o
EOF
RUN <<EOF
#!/bin/sh
echo "script $0" > /s
EOF
RUN cat <<A > /a && cat <<B > /b
in a
A
in b
B
